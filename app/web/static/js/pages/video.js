export const page = { id: "video", title: "video", needs: ["GET /none"], show: async () => {} };
