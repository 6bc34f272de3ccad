"""Pretrained networks, cut where the new head begins."""
