"""The commands of `convert-and-deploy`: what people type and see, one module for each group. No work is done here."""
