"""The audit: does anything held out leak into train, and would the audit have detected it?"""
