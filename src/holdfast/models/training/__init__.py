"""What training runs of all kinds of models share."""
