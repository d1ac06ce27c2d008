"""The words: what they look like on the wire, for ever, and what is never written in the clear."""
