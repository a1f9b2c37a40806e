"""What is known of each dataset, one YAML file a dataset, named exactly as `dataset_info.json` names it."""
