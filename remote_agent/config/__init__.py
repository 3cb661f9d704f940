"""Configs without Hydra: OmegaConf nodes and YAML, made quickly."""
