"""The R sessions: evaluations in their order, who hears what, jobs, the event log and the workspace."""
