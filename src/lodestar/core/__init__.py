"""The mathematics: levels, schedules, plans, transitions, estimates. It knows no network, no file, no picture."""
