"""Who takes part, what each allows, where rows live, how bytes move."""
