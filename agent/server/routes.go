package server

import "slices"

// routes are all that the API can do. Who may do it is in each row.
func routes() []route {
	return slices.Concat(openRoutes(), statusRoutes(), networkRoutes(), accessRoutes(), certificateRoutes(), diskRoutes(), outwardRoutes(),
		bundleRoutes(), configurationRoutes(), powerRoutes(), setupRoutes())
}
