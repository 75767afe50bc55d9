export const page = { id: "live", title: "live", needs: ["GET /none"], show: async () => {} };
