"""What a user types and sees; parse, call the manager, show."""
