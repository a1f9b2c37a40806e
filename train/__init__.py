"""Train from compiled shards. The only room that imports torch."""
