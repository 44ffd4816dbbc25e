"""What starts runs by itself, and what tells people: landing sensors, automation conditions, schedules, alerts."""
