"""What is wrong with the photos: copies, leaks, wrong labels, odd pictures, and labels that something else gives away."""
