package server

import "berth/agent/api"

func certificateRoutes() []route {
	return []route{
		{"GET", "/certificates", admin, "", "The certificate that is served, and the authority behind it", handle((*API).certificates)},
		{"GET", "/certificates/ca", anybody, "", "The appliance's own authority, for clients to trust (PEM)", handle((*API).ca)},
		{"POST", "/certificates/csr", admin, "request a certificate", "Make a key, and a request for a certification authority (PKCS #10, PEM)", handle((*API).requestCertificate)},
		{"POST", "/certificates/upload", admin, "upload a certificate", "Serve a certificate that was issued elsewhere", handle((*API).uploadCertificate)},
		{"POST", "/certificates/renew", admin, "renew the certificate", "Make a new certificate of the appliance's own authority now", handle((*API).renewCertificate)},
		{"POST", "/certificates/reset", admin, "reset the certificate", "Go back from an uploaded certificate to the appliance's own", handle((*API).resetCertificate)},
	}
}

func (a *API) certificates(r *request, _ none) (api.Certificates, error) {
	return a.o.Machine.Certificates(r.Context())
}

func (a *API) ca(r *request, _ none) (text, error) {
	pem, err := a.o.Machine.CA(r.Context())
	return text{"application/x-pem-file", "berth-ca.crt", pem}, err
}

func (a *API) requestCertificate(r *request, in struct {
	Body api.CertificateRequest `body:",optional"`
}) (text, error) {
	r.note("", join(in.Body.Names))
	pem, err := a.o.Machine.RequestCertificate(r.Context(), in.Body.Names)
	return text{"application/x-pem-file", "berth.csr", pem}, err
}

// served notes the fingerprint of what is served now.
func (r *request) served(c api.Certificates, err error) (api.Certificates, error) {
	r.note(c.Server.Subject, c.Server.Fingerprint)
	return c, err
}

func (a *API) uploadCertificate(r *request, in struct {
	Body api.UploadCertificate `body:""`
}) (api.Certificates, error) {
	return r.served(a.o.Machine.UploadCertificate(r.Context(), in.Body))
}

func (a *API) renewCertificate(r *request, _ none) (api.Certificates, error) {
	return r.served(a.o.Machine.RenewCertificate(r.Context()))
}

func (a *API) resetCertificate(r *request, _ none) (api.Certificates, error) {
	return r.served(a.o.Machine.ResetCertificate(r.Context()))
}
