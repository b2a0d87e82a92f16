"""Workload and domains: experiments, the agent, images, hosts, the control network."""
