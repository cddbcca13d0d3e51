"""Reinforcement learning (GRPO) with a reward for quoting what the answer rests on."""
