"""The consumer: fetches tasks, runs them in greenlets or threads, settles them, and loses none.

``consumer.Consumer`` is what others use; importing this package alone imports no gevent.
"""
