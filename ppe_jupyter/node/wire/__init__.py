"""What is agreed between the ends of a line: frames, packed bodies, and descriptors that are never waited for."""
