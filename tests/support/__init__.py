"""What tests share: generators of inputs and reference rules."""
