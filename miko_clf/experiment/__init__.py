"""Recipes trained from several seeds beside their controls, and what differs between them."""
