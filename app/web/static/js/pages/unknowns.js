export const page = { id: "unknowns", title: "Unknowns", needs: ["GET /v1/galleries/{}/unknowns"], show: async () => {} };
