"""The broker: topology, publishing with confirms, consuming, replies, a bridge's inbox. The only package that knows
AMQP.
"""
