"""The line to a master's agent: frames, calls, and a line that is made again when it is cut."""
