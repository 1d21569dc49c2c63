package network

// TestDNSAt is TestDNS for a server at another port.
var TestDNSAt = testDNS
