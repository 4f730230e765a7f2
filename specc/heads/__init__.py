"""Trained drafters: small torch modules that read a model's states. One architecture a file, one entry in a table."""

from __future__ import annotations

from specc.heads.architectures import ARCHITECTURES, build_head
from specc.heads.files import digest, load_head, save_head
from specc.heads.head import Head, HeadConfig, Target

__all__ = ["ARCHITECTURES", "Head", "HeadConfig", "Target", "build_head", "digest", "load_head", "save_head"]
