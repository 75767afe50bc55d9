"""Published networks as model folders, teachers, and starts for fine-tuning."""
