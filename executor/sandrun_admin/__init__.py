"""Commands of the operator: up, doctor, env, keygen, gpu-check."""
