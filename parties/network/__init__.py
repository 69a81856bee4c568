"""How bytes move between two parties: messages, channels, and what carries them."""

from .channel import Carrier, Channel
from .message import Message, Step, Topic

__all__ = ["Carrier", "Channel", "Message", "Step", "Topic"]
