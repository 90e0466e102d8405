"""The playground: a page on Gradio, whose endpoints are its API.

A client's request is a configuration (`web.requests`), which is answered by calls of the library (`web.calls`). A desk makes
their pictures one after another (`web.desk`), by models of a list (`web.shelf`). The page (`web.page`) has a tab for each kind of
request, with forms made of the unions of kinds (`web.forms`), and shows results, sweeps and training runs (`web.views`).
"""
