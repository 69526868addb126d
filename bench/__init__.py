"""What a swap and a hop cost, measured side by side; reads ledgers, never packets."""
