"""The mathematics: levels, schedules, plans, transitions, estimates. No networks, files or pictures."""
