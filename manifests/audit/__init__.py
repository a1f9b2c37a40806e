"""The audit: does anything of what is held out leak into train, and would the audit have seen it?"""
