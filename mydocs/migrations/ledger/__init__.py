"""What is remembered, who may write it, and what is left to do."""
