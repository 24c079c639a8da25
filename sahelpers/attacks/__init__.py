"""Attacks on a model that has forgotten: over latent and label, over weights, and the audit."""
