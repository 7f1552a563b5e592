"""What each verb does for a user, in a notebook and on the command line alike."""
