"""Proves what a swap does to live traffic: real namespaces, real packets, one fate for each datagram.

Light on purpose: workers start by importing this package and must be ready within milliseconds.
"""
