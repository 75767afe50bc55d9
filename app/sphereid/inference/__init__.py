"""From the bytes of a picture to its faces: in threads of this process, or in processes of their own."""
