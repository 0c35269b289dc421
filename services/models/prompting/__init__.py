"""How texts that others wrote stand in a prompt: visible, cut to size, between delimiters they cannot write; as data, never as instructions."""
