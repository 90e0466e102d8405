"""Networks: tensors in, tensors out. They know no noise levels, no losses and no files."""
