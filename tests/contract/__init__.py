"""Adapters, actions and checks against real services."""
