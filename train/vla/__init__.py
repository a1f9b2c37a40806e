"""Vision-language-action models: a vision-language model emits the codes of a latent action."""
