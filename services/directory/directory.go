// Package directory asks an LDAP directory or Active Directory who a user is,
// whether the password is right, and which groups the user is in.
package directory
