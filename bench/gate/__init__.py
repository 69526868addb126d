"""Holds a change to its budget: limits -> what was measured, now or by an earlier run -> findings, an exit code."""
