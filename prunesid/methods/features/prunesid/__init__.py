"""PruneSID (ICLR 2026), a file per section: psca (3.2), nms and quotas (3.3), information (3.4)."""

from prunesid.methods.features.prunesid.method import prunesid

__all__ = ["prunesid"]
