"""Stand-ins for the vendors' APIs, one module a vendor, on a common ground in `standin`."""
