"""EC2 as the local cloud serves it: moto's actions, and those that moto lacks or answers too kindly."""
