"""The fused hot path (see hot_path): grows here."""
