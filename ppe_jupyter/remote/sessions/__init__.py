"""R sessions: what they are asked and answer, their jobs, their notices, their watchdog."""
