"""Rollouts: a policy acts in simulated worlds, and its successes are counted."""
