"""What a client does with the master: the R session, values, cells."""
