package property

// PasswordRule is said of the passwords that people log in with.
const PasswordRule = "8 to 128 characters with an upper-case letter, a lower-case letter and a digit among them."

func network() []Property {
	const c = "network"
	return []Property{
		{Class: c, Key: "mode", Type: Text, Label: "Address assignment", Default: "dhcp", Choices: []string{"dhcp", "static"},
			Description: "dhcp: addresses, gateway and DNS come from the network. static: from the fields below."},
		{Class: c, Key: "hostname", Type: Text, Label: "Host name",
			Description: "Fully qualified, such as registry.example.com; it goes into the certificate. Empty: what DHCP or reverse DNS say, else berth."},
		{Class: c, Key: "ip4", Type: Text, Label: "IPv4 address",
			Description: "For static: 192.0.2.10/24, or 192.0.2.10 with the next field."},
		{Class: c, Key: "prefix_or_mask", Type: Text, Label: "IPv4 prefix length or netmask",
			Description: "24 or 255.255.255.0. Not needed if the address has its prefix."},
		{Class: c, Key: "gateway4", Type: Text, Label: "IPv4 gateway",
			Description: "The default route, such as 192.0.2.1."},
		{Class: c, Key: "ip6", Type: Text, Label: "IPv6 address",
			Description: "With its prefix length, such as 2001:db8::10/64. Empty: router advertisements and DHCPv6."},
		{Class: c, Key: "gateway6", Type: Text, Label: "IPv6 gateway",
			Description: "The default route. Empty: from router advertisements."},
		{Class: c, Key: "dns", Type: Text, Label: "DNS servers",
			Description: "Addresses with a space, comma or semicolon between them. Empty: from DHCP."},
		{Class: c, Key: "search", Type: Text, Label: "DNS search domains",
			Description: "Domains with a space, comma or semicolon between them."},
		{Class: c, Key: "ntp", Type: Text, Label: "NTP servers",
			Description: "Names or addresses with a space, comma or semicolon between them. Empty: from DHCP."},
	}
}

func appliance() []Property {
	const c = "appliance"
	return []Property{
		{Class: c, Key: "root_password", Type: Text, Label: "Password of root", Password: true, Unattended: true,
			Description: "For the VM console and, if it is on, SSH. " + PasswordRule + " Used at the first boot alone. Empty: the wizard asks."},
		{Class: c, Key: "console_password", Type: Text, Label: "Password of the appliance console", Password: true, Unattended: true,
			Description: "For the user admin at https://ADDRESS:5480. " + PasswordRule + " Used at the first boot alone. Empty: the wizard asks."},
		{Class: c, Key: "ssh_enabled", Type: Boolean, Label: "Start the SSH server", Default: "False",
			Description: "It can be switched on and off later, also for a limited time."},
		{Class: c, Key: "ssh_authorized_keys", Type: Text, Label: "SSH keys of root",
			Description: "Public keys as in authorized_keys, with a line break or semicolon between them. With keys, passwords are not accepted by SSH."},
		{Class: c, Key: "timezone", Type: Text, Label: "Time zone", Default: "UTC",
			Description: "A name of the tz database, such as Europe/Berlin."},
	}
}

func registry() []Property {
	const c = "registry"
	return []Property{
		{Class: c, Key: "admin_password", Type: Text, Label: "Password of the registry's administrator", Password: true, Unattended: true,
			Description: "For the user admin of the registry: docker login, REST API. " + PasswordRule + " Used at the first boot alone. Empty: the wizard asks."},
		{Class: c, Key: "external_fqdn", Type: Text, Label: "External name",
			Description: "The name that clients use, if it is not the host name: that of a load balancer, for example."},
		{Class: c, Key: "auth_mode", Type: Text, Label: "Where users come from", Default: "db_auth", Choices: []string{"db_auth", "ldap_auth", "oidc_auth"},
			Description: "db_auth: users that are made in the registry. ldap_auth and oidc_auth: a directory or an OpenID Connect provider, which is set up in the registry afterwards."},
	}
}

func certificate() []Property {
	const c = "tls"
	return []Property{
		{Class: c, Key: "certificate", Type: Text, Label: "Server certificate",
			Description: "PEM, or the PEM in base64; it may be followed by its chain. Empty: the appliance makes a CA and a certificate of its own."},
		{Class: c, Key: "private_key", Type: Text, Label: "Private key of the certificate", Password: true,
			Description: "PEM (PKCS #1, PKCS #8 or SEC 1), or the PEM in base64."},
		{Class: c, Key: "ca_chain", Type: Text, Label: "Chain of the certificate",
			Description: "PEM of the intermediate and root certificates, or the PEM in base64."},
		{Class: c, Key: "key_passphrase", Type: Text, Label: "Passphrase of the private key", Password: true,
			Description: "If the key is encrypted."},
	}
}

func proxy() []Property {
	const c = "proxy"
	return []Property{
		{Class: c, Key: "http", Type: Text, Label: "Proxy for http",
			Description: "Such as http://proxy.example.com:3128, without user name and password."},
		{Class: c, Key: "https", Type: Text, Label: "Proxy for https",
			Description: "As above. Empty: the one for http."},
		{Class: c, Key: "no_proxy", Type: Text, Label: "Not through the proxy",
			Description: "Names, domains (.example.com), addresses and networks with a space, comma or semicolon between them."},
		{Class: c, Key: "proxy_username", Type: Text, Label: "User at the proxy",
			Description: "Empty: none is needed."},
		{Class: c, Key: "proxy_password", Type: Text, Label: "Password at the proxy", Password: true,
			Description: "It may have any characters."},
	}
}

func syslog() []Property {
	const c = "syslog"
	return []Property{
		{Class: c, Key: "targets", Type: Text, Label: "Collectors",
			Description: "Where log messages are sent too: udp://HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT, with a space, comma or semicolon between them."},
		{Class: c, Key: "ca", Type: Text, Label: "CA of the collectors",
			Description: "PEM, or the PEM in base64, for tls. Empty: the authorities of the operating system."},
	}
}

func vcenter() []Property {
	const c = "vcenter"
	return []Property{
		{Class: c, Key: "address", Type: Text, Label: "vCenter Server",
			Description: "Name or address. The registry needs no vCenter. The link to it, with events, alarms and snapshots before updates, comes with a later version and begins with these fields."},
		{Class: c, Key: "vcenter_username", Type: Text, Label: "User at vCenter",
			Description: "Such as berth@vsphere.local."},
		{Class: c, Key: "vcenter_password", Type: Text, Label: "Password at vCenter", Password: true,
			Description: "It may have any characters."},
		{Class: c, Key: "thumbprint", Type: Text, Label: "Thumbprint of vCenter's certificate",
			Description: "SHA-256, as the browser or openssl x509 -fingerprint -sha256 show it. Without it, vCenter is not contacted."},
		{Class: c, Key: "register", Type: Boolean, Label: "Register at vCenter", Default: "False",
			Description: "As an extension, with events and alarms of its own."},
	}
}

func install() []Property {
	const c = "install"
	return []Property{
		{Class: c, Key: "config_b64", Type: Text, Label: "Whole configuration", Password: true,
			Description: "appliance.yaml in base64, for Terraform and govc. Other fields that are filled in go over it."},
		{Class: c, Key: "unattended", Type: Boolean, Label: "Without a wizard", Default: "False",
			Description: "If something is missing or wrong, stop with the reason on the VM console instead of opening the wizard."},
		{Class: c, Key: "restore_url", Type: Text, Label: "Restore from a backup",
			Description: "Not in this version: leave it empty, for a new appliance."},
		{Class: c, Key: "restore_secret", Type: Text, Label: "Password of the backup", Password: true,
			Description: "Not in this version."},
	}
}
